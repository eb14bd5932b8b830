"""Scripts of others that the web book carries with it, so that it needs no network: MathJax, reveal.js, the widget manager.

They are not in the repository. `book/vendor.json` names version, checksum and files of each; `npm pack` fetches the
package once into `.cache/npm/`, and the files are copied out of it. Nothing of a package is ever run here.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any


class VendorError(Exception):
    """A package could not be had, or is not the one that was asked for. The message says what to do."""


def listed(root: Path) -> dict[str, dict[str, Any]]:
    """book/vendor.json: package name -> version, integrity ("sha512-..." as npm writes it), licence, files (patterns)."""
    return json.loads((root / "book" / "vendor.json").read_text(encoding="utf-8"))


def missing(root: Path) -> list[str]:
    """NAME@VERSION of every package that could neither be taken from the cache nor be fetched here."""
    return [
        f"{name}@{package['version']}"
        for name, package in listed(root).items()
        if not _tarball(root, name, package).exists() and shutil.which("npm") is None
    ]


def copy_all(root: Path, to: Path) -> None:
    """Puts the listed files of every package under to/NAME/, fetching what the cache lacks. VendorError if that fails."""
    for name, package in listed(root).items():
        unpack(fetch(root, name, package), package["files"], to / name)


def fetch(root: Path, name: str, package: dict[str, Any]) -> Path:
    """The package's tarball in .cache/npm, checked against its checksum."""
    tarball, wanted = _tarball(root, name, package), f"{name}@{package['version']}"
    if not tarball.exists():
        npm = shutil.which("npm")
        if npm is None:
            raise VendorError(
                f"The book needs {wanted}, but npm is not installed and {tarball.relative_to(root)} is not there. "
                f"Install Node.js, or run `npm pack {wanted}` on another machine and put the file there."
            )
        tarball.parent.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", "--silent", "--ignore-scripts", wanted], cwd=tarball.parent, capture_output=True, text=True
        )
        if done.returncode or not tarball.exists():
            raise VendorError(
                f"`npm pack {wanted}` failed (no network?):\n{done.stderr.strip()}\nRun it on a machine with a network, "
                f"and put the file into {tarball.parent.relative_to(root)}/."
            )
    if (found := integrity(tarball.read_bytes())) != package["integrity"]:
        raise VendorError(
            f"{tarball.relative_to(root)} is not {wanted}: its checksum is {found}, book/vendor.json wants "
            f"{package['integrity']}. Delete the file and build again."
        )
    return tarball


def integrity(content: bytes) -> str:
    """The checksum of a tarball in npm's spelling."""
    return "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()


def unpack(tarball: Path, patterns: list[str], to: Path) -> None:
    """Copies the files of a tarball that match a pattern, less the leading `package/`. Every pattern must match."""
    with tarfile.open(tarball) as archive:
        for pattern in patterns:
            members = [m for m in archive if m.isfile() and fnmatch.fnmatch(m.name, f"package/{pattern}")]
            if not members:
                raise VendorError(f"{tarball.name} holds no {pattern}; correct book/vendor.json.")
            for member in members:
                target = to / member.name.removeprefix("package/")
                if not target.resolve().is_relative_to(to.resolve()):
                    raise VendorError(f"{tarball.name} wants to write outside its folder: {member.name}")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(archive.extractfile(member).read())


def _tarball(root: Path, name: str, package: dict[str, Any]) -> Path:
    as_npm_names_it = name.removeprefix("@").replace("/", "-")
    return root / ".cache" / "npm" / f"{as_npm_names_it}-{package['version']}.tgz"
