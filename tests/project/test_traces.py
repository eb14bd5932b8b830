"""No file of the project names a machine or a package registry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.project.project import ROOT, run


def project_files() -> list[Path]:
    """Returns every file that is committed, or would be by `git add`."""
    done = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
    if done.returncode != 0:
        pytest.skip(f"git does not know this folder as a repository: {done.stderr.strip()}")
    return [ROOT / name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


# Written backwards, so that this file does not find itself.
FOLDERS = "krow toor tpo pmt emoh"[::-1].split()
HOSTS = "gro.ipyp gro.detsohnohtyp sj.mpn.yrtsiger gro.sjmpn gro.naibed.bed"[::-1].split()
# A folder counts at the start of a path only: not in ../x/, in an address, or by chance inside a base64 picture.
TRACE = re.compile(rf"(?:(?<![\w+/.$}}}}-])|(?<=file://))/(?:{'|'.join(FOLDERS)})/|{'|'.join(map(re.escape, HOSTS))}")


def test_the_trace_pattern_finds_what_it_should() -> None:
    for folder in FOLDERS:
        for line in (f'File "/{folder}/x.py"', f"file:///{folder}/x", f"/{folder}/x"):
            assert TRACE.search(line), line
        for line in (f"../{folder}/x", f"example.org/{folder}/x", f"$PWD/{folder}/x", f"iVBORw0KG/{folder}/AAAA"):
            assert not TRACE.search(line), line
    assert all(TRACE.search(f"https://{host}/simple") for host in HOSTS)


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = []
    for path in project_files():
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # pictures, arrays, weights
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in TRACE.finditer(text)]
    assert not found
