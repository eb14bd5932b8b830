"""VS Code and Colab."""

from __future__ import annotations

import json
import re
import tomllib

from packaging.requirements import Requirement

from tests.project.project import ROOT, requirements


def test_vs_code_finds_the_environment_and_runs_notebooks_in_their_folder() -> None:
    settings = json.loads((ROOT / ".vscode" / "settings.json").read_text(encoding="utf-8"))
    assert settings["python.defaultInterpreterPath"] == "${workspaceFolder}/.venv/bin/python"
    assert settings["jupyter.notebookFileRoot"] == "${fileDirname}"  # where the links and files of a lesson start
    wanted = json.loads((ROOT / ".vscode" / "extensions.json").read_text(encoding="utf-8"))["recommendations"]
    assert {"ms-python.python", "ms-toolsai.jupyter"} <= set(wanted)


def test_colab_installs_the_package_in_one_line_and_keeps_its_own_torch() -> None:
    cells = json.loads((ROOT / "notebooks" / "00_start.ipynb").read_text(encoding="utf-8"))["cells"]
    source = next("".join(cell["source"]) for cell in cells if cell["id"] == "00-colab")
    (line,) = re.findall(r"install -q \"(.+)\"'", source)
    requirement = Requirement(line)
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    assert requirement.url == f"git+{settings['repository']}@{settings['branch']}"
    asked = requirements(*requirement.extras)
    assert {"torch", "anywidget", "ipywidgets"} <= set(asked)
    # Colab's own versions when this was written; a bound above one of them would install it anew, and torch is gigabytes.
    assert asked["torch"].specifier.contains("2.8.0")
    assert asked["ipywidgets"].specifier.contains("7.7.1")
