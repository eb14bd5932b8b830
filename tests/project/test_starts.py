"""What starts a kernel takes the settings of `fsl_course/_system/threads.py`, and files that cannot ask it say the same."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fsl_course._system.threads import SPINNING
from tests.project.project import ROOT
from tests.tools.kit.test_build import start


def clean(**changes: str) -> dict[str, str]:
    """Returns this environment without the settings, and with the changes."""
    names = (*SPINNING, "OMP_NUM_THREADS")
    return {name: value for name, value in os.environ.items() if name not in names} | changes


def assignments(path: Path, pattern: str) -> dict[str, str]:
    return dict(re.findall(pattern, path.read_text(encoding="utf-8"), re.M))


def test_vs_code_reads_a_file_that_says_the_same():
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["python.envFile"] == "${workspaceFolder}/.vscode/threads.env"
    assert assignments(ROOT / ".vscode" / "threads.env", r"^(\w+)=(.*)$") == SPINNING


def test_make_exports_the_same_and_keeps_what_is_set(tmp_path):
    lines = (ROOT / "Makefile").read_text(encoding="utf-8").splitlines()
    exported = [line for line in lines if line.startswith("export ")]
    assert assignments(ROOT / "Makefile", r"^export (\w+) \?= (.*)$") == SPINNING
    if shutil.which("make") is None:
        pytest.skip("make is not installed")
    (tmp_path / "Makefile").write_text("\n".join([*exported, "show:", "\t@echo $$GOMP_SPINCOUNT", ""]))

    def shown(**changes: str) -> str:
        done = subprocess.run(
            ["make", "-s"], cwd=tmp_path, env=clean(**changes), capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    assert shown() == SPINNING["GOMP_SPINCOUNT"]
    assert shown(GOMP_SPINCOUNT="7") == "7"


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}])
def test_binder_starts_sessions_with_them(tmp_path, given):
    assert os.access(ROOT / "start", os.X_OK)
    (tmp_path / "python").symlink_to(sys.executable)
    environment = clean(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}", PYTHONPATH=str(ROOT), **given)
    show = [
        sys.executable,
        "-c",
        "import os, sys; print(sys.argv[1:], os.environ['GOMP_SPINCOUNT'])",
        "two words",
        "$x",
    ]
    done = subprocess.run(["bash", ROOT / "start", *show], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == f"['two words', '$x'] {given.get('GOMP_SPINCOUNT', SPINNING['GOMP_SPINCOUNT'])}\n"


def test_binder_starts_a_session_even_if_the_course_is_broken(tmp_path):
    (tmp_path / "python").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "python").chmod(0o755)
    environment = clean(PATH=f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(["bash", ROOT / "start", "echo", "here"], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "here\n")


KERNEL = """
import sys
from ipykernel.kernelapp import IPKernelApp
import IPython.core.application as application
application.ENV_CONFIG_DIRS[:] = [sys.argv[1]]
app = IPKernelApp.instance()
app.init_path = app.init_sockets = app.init_heartbeat = lambda *args: None
application.BaseIPythonApplication.initialize(app, [])
import os
print(os.environ.get("GOMP_SPINCOUNT"), "torch" in sys.modules)
"""


@pytest.mark.parametrize("given", [{}, {"GOMP_SPINCOUNT": "7"}])
def test_every_kernel_of_the_environment_sets_them_before_pytorch_is_there(tmp_path, given):
    """Reads the configuration that env.sh and the kit write, as a kernel does when it starts."""
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "ipython_kernel_config.py").write_text(start.KERNEL_CONFIG)
    environment = clean(IPYTHONDIR=str(tmp_path / "own"), **given)
    command = [sys.executable, "-c", KERNEL, str(tmp_path / "etc")]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == f"{given.get('GOMP_SPINCOUNT', SPINNING['GOMP_SPINCOUNT'])} False\n", done.stderr
