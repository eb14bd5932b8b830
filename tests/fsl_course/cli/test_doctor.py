import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

from fsl_course.__main__ import main
from fsl_course.cli import doctor
from fsl_course.data import assets


def test_a_good_installation_is_told_so(capsys):
    assert main(["doctor"]) == 0
    out = capsys.readouterr().out
    assert "Everything is in order." in out
    assert "WRONG" not in out
    assert "glyphs.npz: SHA-256 as it should be" in out
    assert len(re.findall(r"^  ok    jupyterlab ", out, re.M)) == 1
    assert f"torch {importlib.metadata.version('torch')}" in out
    assert doctor.run(brief=True) == 0
    assert capsys.readouterr().out == "Everything is in order.\n"


def test_damaged_data_is_named_with_its_cure(capsys, tmp_path, monkeypatch):
    for name in ("checksums.json", "icons.npz"):
        (tmp_path / name).write_bytes(assets.asset(name).read_bytes())
    damaged = bytearray(assets.asset("glyphs.npz").read_bytes())
    damaged[100] ^= 1
    (tmp_path / "glyphs.npz").write_bytes(damaged)
    monkeypatch.setattr(assets, "_IN_WHEEL", tmp_path)
    assert doctor.run() == 1
    out = capsys.readouterr().out
    assert "WRONG" in out
    assert "glyphs.npz is damaged" in out
    assert "git checkout -- data/glyphs.npz" in out


@pytest.mark.parametrize(
    ("found", "status", "words"),
    [("0.1.0", 1, "numpy 0.1.0 is too old"), ("99.0", 0, "numpy 99.0"), (None, 1, "numpy is missing")],
)
def test_versions_are_held_against_the_ranges(found, status, words, capsys, monkeypatch):
    version = importlib.metadata.version

    def fake(name: str) -> str:
        if name == "numpy":
            if found is None:
                raise importlib.metadata.PackageNotFoundError(name)
            return found
        return version(name)

    monkeypatch.setattr(importlib.metadata, "version", fake)
    assert doctor.run() == status
    assert words in capsys.readouterr().out


def test_little_memory_and_unset_folders_are_told(capsys, monkeypatch):
    psutil = pytest.importorskip("psutil")
    monkeypatch.setattr(psutil, "virtual_memory", lambda: type("M", (), {"available": 5e8})())
    monkeypatch.setenv("FSL_DATA", "no/such/folder")
    assert doctor.run() == 1
    out = capsys.readouterr().out
    assert "0.5 GB of memory free; lessons need up to 1.5 GB: close other programs." in out
    assert "FSL_DATA names no/such/folder, which is no folder" in out
    assert "2 things to mend" in out


def test_a_folder_that_cannot_be_written_is_told(capsys, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(doctor.tempfile, "TemporaryFile", refuse)
    assert doctor.run() == 1
    assert "cannot be written to (Permission denied)" in capsys.readouterr().out


def test_an_old_python_is_told(capsys, monkeypatch):
    monkeypatch.setattr(doctor, "PYTHON", (9, 0))
    assert doctor.run() == 1
    assert "is too old: install Python 9.0 or newer" in capsys.readouterr().out


def test_it_still_speaks_when_pytorch_is_missing(tmp_path):
    """A finder that hides torch stands for an installation without it."""
    script = (
        "import sys\n"
        "class Hide:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'torch': raise ModuleNotFoundError('No module named torch')\n"
        "sys.meta_path.insert(0, Hide())\n"
        "from fsl_course.__main__ import main\n"
        "sys.exit(main(['doctor']))\n"
    )
    root = Path(__file__).resolve().parents[3]
    run = subprocess.run([sys.executable, "-c", script], cwd=root, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stderr
    assert "PyTorch cannot be imported" in run.stdout
    assert "cannot be checked before the packages are mended" in run.stdout
    assert "Traceback" not in run.stderr


def test_it_says_what_the_processor_offers_and_what_is_set(capsys, monkeypatch):
    monkeypatch.setattr(doctor.sys, "platform", "linux")
    monkeypatch.setattr(doctor.threads, "cores", lambda: 4)
    monkeypatch.setattr(doctor.threads, "quota", lambda *root: 1.5)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv("GOMP_SPINCOUNT", "2000")
    assert doctor.run() == 0
    out = capsys.readouterr().out
    assert "4 cores, a quota of 1.5 cores" in out
    assert re.search(r"PyTorch computes with \d+ threads", out)
    assert "GOMP_SPINCOUNT is 2000" in out
    assert "OMP_NUM_THREADS is not set in this process" in out
    assert "`export OMP_NUM_THREADS=2` before it starts" in out
    monkeypatch.setattr(doctor.threads, "quota", lambda *root: None)
    monkeypatch.delenv("GOMP_SPINCOUNT")
    assert doctor.run(brief=True) == 0
    assert capsys.readouterr().out == "Everything is in order.\n"  # slow is not wrong
    doctor.run()
    out = capsys.readouterr().out
    assert "4 cores, no quota" in out
    assert "GOMP_SPINCOUNT is not set in this process" in out
    assert "OMP_NUM_THREADS" not in out


def test_an_older_python_without_toml_is_told_that_it_is_too_old():
    code = (
        "import sys; sys.modules['tomllib'] = None; sys.version_info = (3, 10, 1)\n"
        "from fsl_course.__main__ import main; sys.exit(main(['doctor']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1, done.stderr
    assert "is too old: install Python 3.11 or newer" in done.stdout
