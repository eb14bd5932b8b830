"""Files of measured rows: written whole after every row, so that a run that was stopped goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from fsl_course._system.files import replace_file


def write(path: Path, head: dict[str, Any], rows: list[dict[str, Any]]) -> None:
    """The head, then one row a line."""
    lines = ",\n".join(f"  {json.dumps(row)}" for row in rows)
    replace_file(path, (json.dumps(head, indent=1)[:-2] + f',\n "rows": [\n{lines}\n ]\n}}\n').encode())


def is_there(rows: list[dict[str, Any]], label: str, seed: int) -> bool:
    """Was this row measured already?"""
    return any(row["label"] == label and row["seed"] == seed for row in rows)


def refuse_other_settings(path: Path) -> SystemExit:
    """To be raised where the file's rows were measured under other settings than those asked for now."""
    return SystemExit(f"{path} was made with other settings: delete it, or name another --out.")
