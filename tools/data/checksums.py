"""Writes data/checksums.json: the SHA-256 of every embedded data file and of all trained weights.

    python -m tools.data.checksums

Run it whenever data/*.npz, data/*.csv or data/checkpoints/*.safetensors changed; it reads all files each time.
It replaces the list in one step, so the list is never half written.
"""

from __future__ import annotations

import json
from pathlib import Path

from fsl_course._system.files import replace_file
from fsl_course.data.assets import sha256

DATA = Path(__file__).resolve().parents[2] / "data"
PATTERNS = ("*.npz", "*.csv", "checkpoints/*.safetensors")


def checksums(data: Path = DATA) -> dict[str, str]:
    """Returns the SHA-256 of every embedded file by its name relative to the data folder, sorted by name."""
    files = {file.relative_to(data).as_posix(): file for pattern in PATTERNS for file in data.glob(pattern)}
    return {name: sha256(files[name]) for name in sorted(files)}


def write_checksums(data: Path = DATA) -> dict[str, str]:
    """Writes checksums.json into the data folder. Returns its content."""
    sums = checksums(data)
    replace_file(data / "checksums.json", (json.dumps(sums, indent=2) + "\n").encode())
    return sums


if __name__ == "__main__":
    print(f"{len(write_checksums())} files in checksums.json")
