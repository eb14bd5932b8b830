import importlib.util
import json
import os
import subprocess
import sys

import pytest

from tests.tools.benchmark.stand_in import LIBRARY
from tools.benchmark import report, time_to
from tools.benchmark.measure import Settings

QUICK = Settings(quick=True, threads=1)


def test_the_course_trains_until_the_goal_and_says_how_long():
    told = time_to.QUICK | {"threads": 1, "device": "cpu", "quick": True, "bfloat16": False, "scale": 1.0}
    said = time_to.child("time_to_course", told)
    assert said["steps"] == time_to.QUICK["every"]
    assert said["seconds"] > said["trained_s"] > 0
    said = time_to.child("time_to_course", told | {"target": 2.0})
    assert said["steps"] == time_to.QUICK["most"]


def test_a_side_that_fails_shows_its_last_words():
    with pytest.raises(RuntimeError, match="time_to_course ended with exit status 1"):
        time_to.child("time_to_course", {"quick": True})


def test_rows_out_of_what_both_sides_say(stand_in, monkeypatch):
    asked = []

    def child(script, told):
        asked.append((script, told))
        slow = 3.0 if script == "time_to_easyfsl" else 1.0
        end = {"ended": 10.0, "ready": 9.0, "steps": 2, "accuracy": 0.5, "trained_s": slow, "peak_mb": 1.0}
        return end | {"seconds": 2 * slow}

    monkeypatch.setattr(time_to, "child", child)
    rows = time_to.time_to_95(QUICK)
    assert [(row["ratio"], row["goal"]) for row in rows] == [(3.0, 3)] * 3
    assert ["scale 1 " in row["setting"] for row in rows] == [True, False, False]
    told = [(told["scale"], told["bfloat16"]) for script, told in asked if script == "time_to_course"]
    assert told == [(1.0, False), (0.1, False), (0.1, True)]
    assert rows[0]["peer_detail"]["seconds_per_step"] == 1.5
    monkeypatch.setitem(time_to.QUICK, "target", 0.9)
    (row,) = time_to.time_to_95(QUICK)
    assert "did not reach 90%" in row["skipped"]


def test_it_needs_easyfsl_and_omniglot_and_says_so(missing, monkeypatch):
    assert "needs easyfsl" in time_to.time_to_95(QUICK)[0]["skipped"]
    monkeypatch.setattr(time_to.peers, "easyfsl", lambda: LIBRARY)
    monkeypatch.delenv("FSL_DATA", raising=False)
    assert "FSL_DATA" in time_to.time_to_95(Settings())[0]["skipped"]


def test_the_report_is_one_line(capsys):
    report.report(1.0, 5, 0.5, 2.0)
    said = json.loads(capsys.readouterr().out)
    assert said["steps"] == 5
    assert said["peak_mb"] is None or said["peak_mb"] > 1


def test_easyfsl_trains_on_picture_files(tmp_path):
    """The peer's script itself, with the real library where it is installed and with the stand-in where not."""
    if importlib.util.find_spec("torchvision") is None:  # importing it by itself may fail: see torchvision_guard
        pytest.skip("the peer's pictures are made into tensors by torchvision")
    source = time_to.load_glyphs()
    time_to.write_glyphs(source, tmp_path)
    validation = source.split("val").select(range(6))
    (tmp_path / "episodes.json").write_text(json.dumps(time_to._fixed_episodes(validation, time_to.QUICK)))
    told = time_to.QUICK | {"threads": 1, "device": "cpu", "folder": str(tmp_path), "quick": True, "workers": 0}
    code = (
        "from tools.benchmark import peers, time_to_easyfsl\nfrom tests.tools.benchmark.stand_in import LIBRARY\n"
        "peers.easyfsl = lambda: LIBRARY\ntime_to_easyfsl.main()"
    )
    home = str(time_to.Path(time_to.__file__).resolve().parents[2])
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(told)],
        env=os.environ | {"PYTHONPATH": home},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert (said["steps"], 0 <= said["accuracy"] <= 1) == (2, True)
