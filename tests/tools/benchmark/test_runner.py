import argparse
import json
import os

import pytest

from tools.benchmark import runner, scaling
from tools.benchmark.measure import Settings
from tools.benchmark.works import WORKS

FIELDS = {
    "work",
    "peer",
    "ours_s",
    "peer_s",
    "ratio",
    "goal",
    "met",
    "agreement",
    "repeats",
    "threads",
    "device",
    "peer_version",
}


def asked(**changes) -> argparse.Namespace:
    usual = {"repeats": None, "threads": 1, "device": "cpu", "quick": True, "learn2learn": None, "higher": None}
    return argparse.Namespace(**usual | {"only": [], "scaling": False, "out": None} | changes)


@pytest.mark.parametrize("name", list(WORKS))
def test_every_work_has_its_function(name):
    module = runner.import_module(f"tools.benchmark.{WORKS[name].module}")
    assert callable(getattr(module, name.replace("-", "_")))


def test_rows_have_the_promised_fields_and_print(missing):
    rows, scaled = runner.measured(asked(), ["conv4-matmul-share", "evaluate-1000"])
    assert scaled == []
    (line,) = runner.as_lines(rows).splitlines()
    assert set(json.loads(line)) >= FIELDS | {"peak_mb"}
    assert "conv4-matmul-share" in runner.as_table(rows, [])
    assert "met" not in runner.as_table(rows, [])  # a quick try meets no goal, and misses none
    assert "goal 0.5: not met" in runner.as_table([rows[0] | {"met": False}], [])
    assert rows[1].keys() == {"work", "peer", "skipped"}


def test_full_works_run_in_processes_of_their_own_and_quick_ones_here():
    assert runner._each(process_of, ["a", "b"], Settings(quick=True)) == [os.getpid()] * 2
    assert os.getpid() not in runner._each(process_of, ["a"], Settings())


def process_of(name: str, settings: Settings) -> int:
    return os.getpid()


def test_scaling_is_measured_where_it_is_asked_for(monkeypatch):
    monkeypatch.setattr(scaling, "AXES", {"sine inner steps": scaling.AXES["sine inner steps"]})
    rows, (row,) = runner.measured(asked(scaling=True, repeats=1), [])
    assert rows == []
    assert row["axis"] == "sine inner steps"
    assert "each one more costs" in runner.as_table([], [row])


def test_the_file_says_what_was_run_and_leaves_out_what_was_not(tmp_path):
    out = tmp_path / "benchmark.json"
    runner.write(
        asked(out=str(out), scaling=True, only=["time-to-95"]), [{"work": "a", "skipped": "why"}], [{"axis": "b"}]
    )
    content = json.loads(out.read_text())
    assert (content["rows"], content["scaling"]) == ([], [{"axis": "b"}])
    assert content["about"]["command"] == (
        "python -m tools.benchmark --only time-to-95 --threads 1 --device cpu --quick --scaling --out FILE"
    )
