"""Binder and conda: the environment, and the scripts that Binder runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.project import ROOT, requirements, run

TO_PYPI = {"pytorch-cpu": "torch", "matplotlib-base": "matplotlib"}  # names that differ between conda-forge and PyPI


def environment() -> dict[str, Requirement]:
    """Returns the packages of environment.yml under their PyPI names, without python and pip, which are conda's own."""
    listed = yaml.safe_load((ROOT / "environment.yml").read_text(encoding="utf-8"))["dependencies"]
    assert all(isinstance(line, str) for line in listed), "a pip section switches off Binder's cache; use postBuild"
    found = {}
    for line in listed:
        name, specifier = re.fullmatch(r"([a-z0-9-]+)(.*)", line).groups()
        if name not in ("python", "pip"):
            found[TO_PYPI.get(name, name)] = Requirement(TO_PYPI.get(name, name) + specifier)
    return found


def test_environment_yml_asks_for_what_pyproject_asks_for() -> None:
    assert {n: r.specifier for n, r in environment().items()} == {
        n: r.specifier for n, r in requirements("lab").items()
    }


def test_binder_files_lie_at_the_root_and_install_only_the_course_itself() -> None:
    assert not (ROOT / "binder").exists(), "a binder/ folder makes Binder ignore the files at the root"
    assert not (ROOT / ".binder").exists()
    text = (ROOT / "environment.yml").read_text(encoding="utf-8")
    assert "- python=3.11\n" in text, "a range such as >=3.11 silently becomes 3.10 on Binder"
    assert os.access(ROOT / "postBuild", os.X_OK)
    commands = [
        line
        for line in (ROOT / "postBuild").read_text(encoding="utf-8").splitlines()
        if line and not line.startswith(("#", "set "))
    ]
    assert commands == ["pip install --no-deps -e ."]


def test_repo2docker_reads_environment_yml_and_post_build() -> None:
    done = run(
        sys.executable, "-m", "repo2docker", "--no-build", "--debug", "--user-id", 1000, "--user-name", "jovyan", "."
    )
    assert done.returncode == 0, done.stderr
    assert "Building conda environment for python=3.11" in done.stdout + done.stderr
    assert re.search(r'env update -p \S+ --file "environment.yml"', done.stdout)
    assert "RUN ./postBuild" in done.stdout
    assert re.search(r'ENV R2D_ENTRYPOINT="\S*/start"', done.stdout)


def test_the_names_in_environment_yml_exist_and_fit_together(tmp_path: Path) -> None:
    """Resolves the names and bounds under their PyPI names, because conda is not here. Installs nothing."""

    def resolve(*wanted: str) -> subprocess.CompletedProcess[str]:
        return run(
            *(sys.executable, "-m", "pip", "install", "--dry-run", "--ignore-installed", "--quiet"),
            *("--only-binary", ":all:", "--report", tmp_path / "report.json", "--retries", "0", "--timeout", "30"),
            *wanted,
        )

    if resolve("--no-deps", "tqdm").returncode != 0:
        pytest.skip("no package index can be reached: the names of environment.yml were not resolved")
    names = {name: requirement for name, requirement in environment().items() if name != "torch"}
    done = resolve(*map(str, names.values()))
    assert done.returncode == 0, done.stderr
    found = {
        canonicalize_name(item["metadata"]["name"]): item["metadata"]["version"]
        for item in json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["install"]
    }
    assert all(requirement.specifier.contains(found[name]) for name, requirement in names.items())


def test_every_lesson_fits_into_a_binder_session() -> None:
    times = json.loads((ROOT / "data" / "lesson_times.json").read_text(encoding="utf-8"))
    assert {name: entry["peak_mb"] for name, entry in times.items() if entry["peak_mb"] > 1500} == {}
