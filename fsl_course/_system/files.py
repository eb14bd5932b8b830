"""Writes a file whole or not at all. Weights, runs, caches, progress and cards are all written this way."""

import os
import uuid
from contextlib import suppress
from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Writes a scratch file and moves it in place, so that either the old file or the whole new one is there.

    Makes the folder if it is missing. Each writer has a scratch file of its own, so that several can write at once.
    Raises OSError (full disk, read-only folder); the file is then unchanged, and no scratch file is left.
    """
    scratch = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(scratch, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())  # or a power cut could leave an empty file under the right name
        os.replace(scratch, path)
    except OSError as error:
        if error.errno is not None:  # else the message is the error's own
            error.filename = str(path)  # which the caller knows; the scratch file has gone
        raise
    finally:
        with suppress(OSError):  # it is gone after os.replace, and never existed if it could not be opened
            scratch.unlink()
