"""The file of measured rows: one row a line, read back as it was."""

from __future__ import annotations

import json
from pathlib import Path

from tools.results.rows import is_there, refuse_other_settings, write


def test_rows_are_kept_one_a_line_under_their_head(tmp_path: Path):
    head, rows = (
        {"command": "x", "train": {"way": 5}},
        [{"label": "MAML", "seed": s, "correct": [3, 4]} for s in (0, 1)],
    )
    path = tmp_path / "rows.json"
    write(path, head, rows)
    assert json.loads(path.read_text(encoding="utf-8")) == head | {"rows": rows}
    assert sum('"label"' in line for line in path.read_text(encoding="utf-8").splitlines()) == len(rows)
    assert is_there(rows, "MAML", 1)
    assert not is_there(rows, "MAML", 2)
    assert not is_there(rows, "ANIL", 1)


def test_other_settings_are_refused_by_the_files_name(tmp_path: Path):
    assert str(tmp_path / "rows.json") in str(refuse_other_settings(tmp_path / "rows.json"))
