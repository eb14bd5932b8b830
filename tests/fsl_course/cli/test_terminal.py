"""Output that cannot be written, and errors of the system: one line, and a status that says so."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fsl_course.cli.terminal import in_words

FULL = Path("/dev/full")


def shell(words: str, output: str) -> subprocess.CompletedProcess[str]:
    """Runs `python -m fsl_course WORDS` with its standard output sent somewhere else by the shell."""
    line = f"exec {sys.executable} -m fsl_course {words} {output}"
    return subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=False, timeout=100)


@pytest.mark.parametrize("words", ["evaluate baselines --episodes 2 --query 1", "results", "doctor"])
def test_a_closed_output_is_an_error_of_one_line(words):
    done = shell(words, ">&-")
    assert (done.returncode, done.stderr) == (
        1, "error: standard output is closed, so that nothing can be printed: open it, e.g. with > FILE.\n"
    )  # fmt: skip


@pytest.mark.skipif(not FULL.exists(), reason="/dev/full, a disk that is always full, is there on Linux only")
@pytest.mark.parametrize("words", ["--help", "--version", "evaluate --help", "train --list-presets", "results"])
def test_a_full_disk_is_an_error_also_for_help_and_version(words):
    done = shell(words, f"> {FULL}")
    assert done.returncode == 1
    assert done.stderr.startswith("error: No space left on device. Check")
    assert done.stderr.count("\n") == 1


def test_errors_of_the_system_name_the_file_and_no_number(tmp_path):
    for act in (
        (tmp_path / "gone").read_bytes,
        lambda: (tmp_path / "gone").mkdir(mode=0) or (tmp_path / "gone").mkdir(),
    ):
        with pytest.raises(OSError) as error:  # noqa: PT011 - its words are the system's
            act()
        words = in_words(error.value)
        assert words.startswith(f"{tmp_path / 'gone'}: ")
        assert "Errno" not in words
    assert in_words(OSError("in words already")) == "in words already"
