"""Files of measured rows. They are written again after every row, so that a stopped measurement can continue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsl_course._system.files import replace_file


def write(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """Replaces the file by a JSON object: the fields of the head, then "rows" with one row a line."""
    replace_file(path, (json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{row_lines(rows)}\n ]\n}}\n').encode())


def row_lines(rows: list[dict[str, Any]]) -> str:
    """Returns the rows as JSON objects, one a line."""
    return ",\n".join(f"  {json.dumps(row)}" for row in rows)


def kept(path: Path, head: dict[str, Any], same: tuple[str, ...] = ("train", "episodes")) -> list[dict[str, Any]]:
    """Returns the rows of a file that an interrupted measurement left, or [] if there is none.

    same: the fields of the head that must agree. Raises SystemExit if the file was measured with other settings.
    """
    if not path.exists():
        return []
    there = json.loads(path.read_text(encoding="utf-8"))
    if any(there[name] != head[name] for name in same):
        raise refuse_other_settings(path)
    return there["rows"]


def key_of(row: dict[str, Any]) -> str:
    """Returns a task's key in the papers' numbers: 5w1s for 5-way 1-shot."""
    return f"{row['way']}w{row['shot']}s"


def is_there(rows: list[dict[str, Any]], label: str, seed: int) -> bool:
    """Returns True if one of the rows has this label and this seed."""
    return any(row["label"] == label and row["seed"] == seed for row in rows)


def refuse_other_settings(path: Path) -> SystemExit:
    """Returns the exception to raise if the rows of the file were measured with other settings than the ones asked for."""
    return SystemExit(f"{path} was made with other settings: delete it, or name another --out.")
