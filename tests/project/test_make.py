"""The Makefile, and the script and the workflow that call it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from tests.project.project import ROOT, run


def test_make_help_lists_every_target() -> None:
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = set(re.findall(r"^([a-z-]+):", makefile, re.M))
    assert {"env", "lab", "test", "notebooks", "lint", "clean", "help"} <= targets
    listed = re.findall(r"^  make ([a-z-]+) +\S", run("make", "help").stdout, re.M)
    assert set(listed) == targets
    assert set(re.search(r"^\.PHONY: (.+)$", makefile, re.M)[1].split()) == targets


@pytest.mark.parametrize("omniglot", [True, False])
def test_ci_calls_make_test_and_finds_omniglot_beside_the_repository(tmp_path: Path, omniglot: bool) -> None:
    assert os.access(ROOT / ".ci/run", os.X_OK)
    repository, tools = tmp_path / "repository", tmp_path / "tools"
    (repository / ".ci").mkdir(parents=True)
    shutil.copy(ROOT / ".ci/run", repository / ".ci/run")
    tools.mkdir()
    (tools / "make").write_text('#!/bin/sh\necho "$*|$PWD|$FSL_DATA"\nexit 3\n')
    (tools / "make").chmod(0o755)
    data = tmp_path / "shared" / "omniglot"
    if omniglot:
        data.mkdir(parents=True)
    done = run(
        "bash",
        "repository/.ci/run",
        cwd=tmp_path,
        PATH=f"{tools}:{os.environ['PATH']}",
        FSL_DATA="" if omniglot else "x",
    )
    assert done.stdout.strip() == f"test|{repository}|{data if omniglot else 'x'}", done.stderr
    assert done.returncode == 3, "a failing make must fail CI"


def test_the_workflow_is_valid_and_runs_make_test_on_every_system() -> None:
    workflow = ROOT / ".github" / "workflows" / "test.yml"
    done = run(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.github-workflows", workflow)
    assert done.returncode == 0, done.stdout + done.stderr
    job = yaml.safe_load(workflow.read_text(encoding="utf-8"))["jobs"]["test"]
    assert job["strategy"]["matrix"] == {
        "system": ["ubuntu-latest", "macos-latest", "windows-latest"],
        "python": ["3.11", "3.13"],
    }
    assert [step["run"] for step in job["steps"] if "run" in step][-1] == "make test"
    assert job["defaults"]["run"]["shell"] == "bash"
