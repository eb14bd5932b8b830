"""Writing a file whole or not at all: weights, runs, caches, progress and cards all go through here."""

from __future__ import annotations

import os
import uuid
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Writes beside the file, then moves it in place: whatever happens, the old file or the whole new one is there.

    The folder is made where it is missing. Each writer has a scratch file of its own, so that several may write at once.
    Raises OSError (full disk, folder that may not be written to); the file is then as it was, and no scratch file is left.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the right name
        os.replace(scratch, path)
    finally:
        with suppress(OSError):  # gone after os.replace, and never there where it could not be opened
            scratch.unlink()
