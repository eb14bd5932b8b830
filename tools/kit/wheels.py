"""Collects the wheels of the offline kit: everything that a student installs, for any system and Python.

`pip download` evaluates the markers of dependencies ("only on Windows") for the machine it runs on. So this module follows the
dependencies itself: constraints.txt pins every version, and the metadata of a wheel names what it needs.
"""

from __future__ import annotations

import email.parser
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.tags import Tag, compatible_tags, cpython_tags, mac_platforms
from packaging.utils import canonicalize_name, parse_wheel_filename
from packaging.version import Version

CPU_INDEX = "https://download.pytorch.org/whl/cpu"
PYTHONS = ("3.11", "3.12", "3.13")
SYSTEMS = ("linux_x86_64", "linux_aarch64", "windows_amd64", "macos_arm64", "macos_x86_64")
MARKERS = {
    "linux": {"sys_platform": "linux", "platform_system": "Linux", "os_name": "posix"},
    "windows": {"sys_platform": "win32", "platform_system": "Windows", "os_name": "nt"},
    "macos": {"sys_platform": "darwin", "platform_system": "Darwin", "os_name": "posix"},
}
NO_NETWORK = (
    "connection broken",
    "new connection",
    "name resolution",
    "Name or service not known",
    "timed out",
    "ProxyError",
    "getaddrinfo",
)


class KitError(Exception):
    """The kit cannot be made; the message says why, and what to do."""


class Unavailable(KitError):
    """The kit cannot have this system and Python, but it may have others."""


@dataclass(frozen=True)
class Target:
    """A system, one of SYSTEMS, and a Python, one of PYTHONS."""

    system: str
    python: str

    def __str__(self) -> str:
        return f"{self.system}-py{self.python}"

    @property
    def platforms(self) -> list[str]:
        """The platform tags that this system accepts, best first. Linux: glibc 2.28 or newer; macOS: 14 or newer."""
        kind, _, machine = self.system.partition("_")
        if kind == "windows":
            return [f"win_{machine}"]
        if kind == "macos":
            return list(mac_platforms((14, 0), machine))
        old = {17: "2014", 12: "2010", 5: "1"}
        named = [(f"manylinux_2_{v}", f"manylinux{old[v]}" if v in old else None) for v in range(28, 4, -1)]
        return [f"{name}_{machine}" for pair in named for name in pair if name] + [f"linux_{machine}"]

    @property
    def tags(self) -> set[Tag]:
        """Every wheel tag that this system and Python can install."""
        version = tuple(int(part) for part in self.python.split("."))
        name = "cp{}{}".format(*version)
        return {*cpython_tags(version, [name], self.platforms), *compatible_tags(version, name, self.platforms)}

    @property
    def markers(self) -> dict[str, str]:
        """The environment in which the markers of dependencies are evaluated."""
        kind, _, machine = self.system.partition("_")
        machine = "AMD64" if kind == "windows" else machine
        python = {"python_version": self.python, "python_full_version": f"{self.python}.0"}
        cpython = {"implementation_name": "cpython", "platform_python_implementation": "CPython"}
        return {**default_environment(), **MARKERS[kind], "platform_machine": machine, **python, **cpython}


def pins_of(root: Path) -> dict[str, str]:
    """Returns the version of each package: from constraints.txt, and from tools/setup/env.sh for torch and torchvision."""
    lines = (root / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if "==" in line and not line.startswith("#"))
    for line in (root / "tools" / "setup" / "env.sh").read_text(encoding="utf-8").splitlines():
        for package in ("torch", "torchvision"):
            if line.startswith(f"{package.upper()}_VERSION="):
                pins[package] = line.partition("=")[2].split()[0]
    return {canonicalize_name(name): version.strip() for name, version in pins.items()}


def pip_download(target: Target, specs: list[str], folder: Path) -> None:
    """Downloads wheels, given as "name==version", without their dependencies. Raises Unavailable or KitError if pip fails."""
    # For macOS, pip derives the older versions from the newest one.
    platforms = target.platforms[:1] if target.system.startswith("macos") else target.platforms
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--python-version", target.python, "--implementation", "cp"]
    command += [word for platform in platforms for word in ("--platform", platform)]
    command += [] if sys.stdout.isatty() else ["--quiet"]
    index = os.environ.get("TORCH_INDEX")
    if index is None and target.system.startswith("linux") and not os.environ.get("PIP_FIND_LINKS"):
        index = CPU_INDEX  # as in tools/setup/env.sh: elsewhere torch for Linux is the CUDA build, several GB
    if index and specs[0].startswith("torch"):
        command += ["--index-url", index]
    done = subprocess.run([*command, *specs], stderr=subprocess.PIPE, text=True)
    if done.returncode:
        raise explained(done.stderr, target)


def explained(words: str, target: Target) -> KitError:
    """Returns the error that the output of a failed pip stands for."""
    if "No space left" in words or "Errno 28" in words:
        return KitError("the disk is full. Make room, or name another folder with --out, and call again.")
    if any(sign in words for sign in NO_NETWORK):
        return KitError("the package index was not reached: no network? Call again later; what is here is kept.")
    if "No matching distribution found for " in words:
        package = words.rpartition("No matching distribution found for ")[2].split()[0]
        unsure = " Or the package index was not reached." if "from versions: none" in words else ""
        return Unavailable(f"{package} has no wheel for {target}.{unsure}")
    return KitError(f"pip failed for {target}. Its last words:\n" + "\n".join(words.strip().splitlines()[-5:]))


def fitting(folder: Path, name: str, version: str, tags: set[Tag]) -> Path | None:
    """Returns the wheel of this package in the folder that these tags accept, or None."""
    for path in sorted(folder.glob("*.whl")):
        found, release, _, offered = parse_wheel_filename(path.name)
        # A pin of 2.13.0 accepts 2.13.0+cpu.
        if found == name and release.public == Version(version).public and offered & tags:
            return path
    return None


def needs(wheel: Path, extras: Iterable[str], markers: Mapping[str, str]) -> list[Requirement]:
    """Returns what a wheel depends on in this environment, by its metadata."""
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
        metadata = email.parser.BytesParser().parsebytes(archive.read(name), headersonly=True)
    found = [Requirement(line) for line in metadata.get_all("Requires-Dist", [])]
    kinds = ["", *extras]
    return [
        r for r in found if r.marker is None or any(r.marker.evaluate({**markers, "extra": kind}) for kind in kinds)
    ]


def collect(
    target: Target,
    wanted: Requirement,
    pins: Mapping[str, str],
    folder: Path,
    download: Callable[[Target, list[str], Path], None] = pip_download,
) -> list[Path]:
    """Downloads everything that a requirement needs on the target into the folder. Returns these wheels, sorted.

    Works in rounds, one for each level of dependencies. Wheels that are there are not downloaded again. An interrupted download
    leaves no half wheel behind.
    """
    tags, markers = target.tags, target.markers
    found: dict[str, Path] = {}
    asked: dict[str, set[str]] = {}  # package -> extras that were followed
    frontier = [wanted]
    while frontier:
        names = {canonicalize_name(r.name) for r in frontier}
        for name in sorted(names - set(pins)):
            hint = " That is the CUDA build of torch." if name.startswith(("nvidia", "cuda", "triton")) else ""
            raise Unavailable(f"{name} is needed on {target} and not pinned in constraints.txt.{hint}")
        missing = sorted(name for name in names if not fitting(folder, name, pins[name], tags))
        for group in ([n for n in missing if n.startswith("torch")], [n for n in missing if not n.startswith("torch")]):
            if (
                group
            ):  # torch is fetched alone, because it has its own index and is too large to lose when the rest fails
                print(f"kit: {target}: fetching {', '.join(group)}", flush=True)
                _fetch(target, [f"{name}=={pins[name]}" for name in group], folder, download)
        following = []
        for requirement in frontier:
            name = canonicalize_name(requirement.name)
            wheel = fitting(folder, name, pins[name], tags)
            if wheel is None:
                raise Unavailable(f"{name}=={pins[name]} has no wheel for {target}.")
            found[name] = wheel
            new = requirement.extras - asked.get(name, set())
            if name not in asked or new:
                asked[name] = asked.get(name, set()) | new
                following += needs(wheel, new, markers)
        frontier = following
    return sorted(found.values())


def _fetch(target: Target, specs: list[str], folder: Path, download: Callable) -> None:
    incoming = folder / ".incoming"
    shutil.rmtree(incoming, ignore_errors=True)
    incoming.mkdir(parents=True)
    try:
        download(target, specs, incoming)
        for path in incoming.glob("*.whl"):
            os.replace(path, folder / path.name)
    finally:
        shutil.rmtree(incoming, ignore_errors=True)
