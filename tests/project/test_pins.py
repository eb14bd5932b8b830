"""The pins of constraints.txt and env.sh, and the citation, against pyproject.toml."""

from __future__ import annotations

import re
import tomllib

import yaml
from packaging.utils import canonicalize_name
from packaging.version import Version

from tests.project.project import PROJECT, ROOT, requirements


def pins() -> list[tuple[str, str]]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [tuple(line.split("==")) for line in lines if line and not line.startswith("#")]


def test_constraints_pin_every_direct_dependency_once_within_its_bounds() -> None:
    names = [canonicalize_name(name) for name, _ in pins()]
    assert len(names) == len(set(names)) > 100
    versions = dict(zip(names, (version for _, version in pins()), strict=True))
    for name, requirement in requirements("lab", "dev").items():
        if name not in ("torch", "torchvision"):
            assert requirement.specifier.contains(versions[name]), f"{name}=={versions[name]} is not {requirement}"


def test_constraints_leave_torch_to_the_setup_script() -> None:
    brought_by_cuda = re.compile(r"torch(vision|audio)?$|triton|cuda|nvidia")
    assert not [name for name, _ in pins() if brought_by_cuda.match(name)]
    assert all(re.fullmatch(r"[0-9][0-9a-z.]*", version) for _, version in pins()), "a local or a loose version"
    pinned = re.findall(r"^TORCH_VERSION=(.+)$", (ROOT / "tools/setup/env.sh").read_text(encoding="utf-8"), re.M)
    assert len(pinned) == 1
    assert requirements()["torch"].specifier.contains(pinned[0])
    vision = re.findall(r"^TORCHVISION_VERSION=(\S+)", (ROOT / "tools/setup/env.sh").read_text(encoding="utf-8"), re.M)
    assert len(vision) == 1
    assert requirements("photos")["torchvision"].specifier.contains(vision[0])


def test_citation_agrees_with_pyproject() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    course = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["fsl_course"]
    assert Version(str(citation["version"])) == Version(PROJECT["version"])
    assert citation["license"] == PROJECT["license"]
    assert citation["repository-code"] == course["repository"]
    assert citation["keywords"] == PROJECT["keywords"]
    assert {"cff-version", "message", "title", "authors"} <= citation.keys()
