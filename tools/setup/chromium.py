"""Finds Chromium: `python -m tools.setup.chromium` prints its path, after installing Debian's package where none is there.

The variable FSL_CHROMIUM names another browser that is built on Chromium; if it names no program, the exit status is 2. If there
is no browser and none can be installed, the exit status is 3, and the reason is printed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "microsoft-edge")
NONE = 3  # exit status: there is no browser, and none could be installed


def find() -> str | None:
    """Returns the browser that FSL_CHROMIUM names, or else the first one that is installed, or None.

    Raises ValueError if the variable names no program.
    """
    if named := os.environ.get("FSL_CHROMIUM"):
        if path := shutil.which(named):
            return path
        raise ValueError(f"FSL_CHROMIUM names {named!r}, which is no program.")
    return next((path for name in NAMES if (path := shutil.which(name))), None)


def install() -> str | None:
    """Installs Debian's package. Returns None, or why it cannot be installed."""
    if not shutil.which("apt-get"):
        return "there is no Chromium, and no apt-get to install it with; install one, or name it in FSL_CHROMIUM"
    if hasattr(os, "geteuid") and os.geteuid() != 0:
        return "there is no Chromium; install it with `sudo apt-get install chromium`, or name one in FSL_CHROMIUM"
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive"}
    for command in (["apt-get", "-qq", "update"], ["apt-get", "-qq", "install", "-y", "chromium"]):
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            return f"`{' '.join(command)}` failed: {last}"
    return None


def main() -> int:
    """Prints the browser's path, or what is wrong, and returns the exit status."""
    try:
        problem = None if find() else install()
        path = find()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if path is None:
        print(problem or "Debian's package is installed, but there is no program chromium", file=sys.stderr)
        return NONE
    print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main())
