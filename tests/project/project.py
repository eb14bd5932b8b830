"""What the tests of the files at the root share: pyproject.toml, and a way to run commands."""

from __future__ import annotations

import os
import subprocess
import tomllib
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def requirements(*extras: str) -> dict[str, Requirement]:
    """Returns the package's own requirements and those of these extras, by name. Follows extras that an extra asks for."""
    found = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["dependencies"])}
    for extra in extras:
        asked = {canonicalize_name(r.name): r for r in map(Requirement, PROJECT["optional-dependencies"][extra])}
        own = asked.pop(PROJECT["name"], None)
        found |= (requirements(*sorted(own.extras)) if own else {}) | asked
    return found


def run(*command: object, cwd: Path = ROOT, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(part) for part in command], cwd=cwd, env=os.environ | env, capture_output=True, text=True, timeout=300
    )
