"""Installs the course from this kit, without a network, and opens it. Called by start.sh and start.bat.

    python start.py                      into the folder fsl-course in your home folder
    python start.py --to FOLDER          somewhere else
    python start.py --check              install and check, open nothing
    python start.py --no-browser         everything else goes to JupyterLab

Uses only the standard library and syntax that an old Python can read, so that it can say there what is wrong.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

KIT = Path(__file__).resolve().parent
SYSTEM = {"Linux": "linux", "Windows": "windows", "Darwin": "macos"}.get(platform.system(), platform.system().lower())
MACHINE = {"amd64": "x86_64", "aarch64": "arm64"}.get(platform.machine().lower(), platform.machine().lower())
# Every kernel of the environment runs this first, as in tools/setup/env.sh.
KERNEL_CONFIG = """\
# Makes PyTorch's threads share the processor with other programs; must run before a notebook imports PyTorch.
from fsl_course._system import threads

threads.prepare()
"""
NAMES = {("windows", "x86_64"): "windows_amd64", ("linux", "arm64"): "linux_aarch64"}


class Stop(Exception):
    """The course cannot be started; the message says why, and what to do."""


def wheel_list(kit: Path) -> Path:
    """Returns the list of wheels for this system and Python. Raises Stop if the kit has none."""
    here = "{}-py{}.{}".format(NAMES.get((SYSTEM, MACHINE), f"{SYSTEM}_{MACHINE}"), *sys.version_info[:2])
    path = kit / "wheels" / f"{here}.txt"
    if sys.maxsize < 2**32:
        raise Stop("this Python has 32 bit, and PyTorch needs 64. Install a 64-bit Python.")
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in (kit / "wheels").glob("*.txt"))) or "none"
        raise Stop(f"this kit has no packages for {here}. It has: {known}. Install one of these Pythons.")
    return path


def verify(kit: Path, wheels: Path) -> int:
    """Checks the SHA-256 of every file that is used here. Returns their number. Raises Stop for a damaged or missing one."""
    if not (kit / "KIT-COMPLETE").is_file():
        raise Stop("the kit was never finished (KIT-COMPLETE is missing). Whoever made it must make it again.")
    used = {"wheels/" + line[2:] for line in wheels.read_text(encoding="utf-8").splitlines() if line.startswith("./")}
    count = 0
    for line in (kit / "SHA256SUMS").read_text(encoding="utf-8").splitlines():
        expected, name = line.split("  ", 1)
        if name.endswith(".whl") and name not in used:
            continue  # for another system
        used.discard(name)
        count += 1
        if not (kit / name).is_file():
            raise Stop(f"{name} is missing from the kit. Copy the kit again.")
        digest = hashlib.sha256()
        with open(kit / name, "rb") as file:
            for block in iter(lambda: file.read(1 << 20), b""):
                digest.update(block)
        if digest.hexdigest() != expected:
            raise Stop(f"{name} is damaged. Copy the kit again.")
    if used:
        raise Stop(f"{min(used)} is not listed in SHA256SUMS. Copy the kit again.")
    return count


def python_in(home: Path) -> Path:
    """Returns the path of the environment's interpreter."""
    return home / ".venv" / ("Scripts/python.exe" if os.name == "nt" else "bin/python")


def install(kit: Path, home: Path, wheels: Path) -> None:
    """Makes the environment, from the wheels of the kit alone."""
    shutil.rmtree(home / ".venv", ignore_errors=True)  # an unfinished one, or that of an older kit
    if subprocess.run([sys.executable, "-m", "venv", str(home / ".venv")]).returncode:
        raise Stop("no environment could be made. On Debian and Ubuntu: apt install python3-venv")
    # --isolated, because pip's configuration on this computer may name other places than the kit.
    command = [str(python_in(home)), "-m", "pip", "--isolated", "install", "--no-index", "--find-links", "."]
    if subprocess.run([*command, "--quiet", "-r", wheels.name], cwd=str(wheels.parent)).returncode:
        raise Stop("the packages could not be installed: see the lines above. Is the disk full (2 GB are needed)?")
    config = home / ".venv" / "etc" / "ipython" / "ipython_kernel_config.py"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(KERNEL_CONFIG)


def copy_course(kit: Path, home: Path) -> list[str]:
    """Copies the course into the folder, but never over a notebook, which may hold work. Returns the notebooks that differ."""
    kept = []
    for source in sorted((kit / "course").rglob("*")):
        target = home / source.relative_to(kit / "course")
        if not source.is_file():
            continue
        if target.suffix == ".ipynb" and target.is_file():
            if target.read_bytes() != source.read_bytes():
                kept.append(target.name)
            continue
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
    return kept


def main(arguments: list[str] | None = None, kit: Path = KIT) -> int:
    """Runs the command line. Returns the exit status."""
    parser = argparse.ArgumentParser(description="Install the course from this kit and open it.")
    parser.add_argument("--to", type=Path, default=Path.home() / "fsl-course", metavar="FOLDER")
    parser.add_argument("--check", action="store_true", help="install and check, open nothing")
    options, rest = parser.parse_known_args(arguments)
    home = options.to.resolve()
    try:
        wheels = wheel_list(kit)
        state = hashlib.sha256((kit / "SHA256SUMS").read_bytes()).hexdigest() if (kit / "SHA256SUMS").is_file() else ""
        stamp = home / ".venv" / "kit.stamp"
        if not (stamp.is_file() and stamp.read_text() == state and python_in(home).exists()):
            print("1 of 3: checking the kit ...", flush=True)
            print(f"        {verify(kit, wheels)} files are whole.")
            print(f"2 of 3: installing into {home} (a few minutes) ...", flush=True)
            home.mkdir(parents=True, exist_ok=True)
            install(kit, home, wheels)
            stamp.write_text(state)
        kept = copy_course(kit, home)
        if kept:
            print(f"        your own versions stay as they are: {', '.join(kept)}")
    except Stop as word:
        print(f"start: {word}", file=sys.stderr)
        return 1
    except OSError as error:
        print(
            f"start: {error}. Is the disk full, or may this folder not be written to? --to names another.",
            file=sys.stderr,
        )
        return 1
    python = str(python_in(home))
    if options.check:
        return subprocess.run([python, "-m", "fsl_course", "doctor"], cwd=str(home)).returncode
    print("3 of 3: opening JupyterLab. Ctrl-C stops it.", flush=True)
    root = ["--allow-root"] if hasattr(os, "geteuid") and os.geteuid() == 0 else []
    lab = ["-m", "jupyterlab", "--LabApp.default_url=/lab/tree/notebooks/00_start.ipynb", *root, *rest]
    try:
        return subprocess.run([python, *lab], cwd=str(home)).returncode
    except KeyboardInterrupt:
        return 0


if __name__ == "__main__":
    sys.exit(main())
