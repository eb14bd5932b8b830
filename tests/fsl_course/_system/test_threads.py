"""Threads on shared machines: the quota of control groups, and the settings that follow from it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fsl_course._system import threads

ROOT = Path(__file__).resolve().parents[3]


def machine(root: Path, cgroup: str, **files: str) -> Path:
    """A root folder with /proc/self/cgroup and files of control groups; their names have __ for / and _dot_ for a dot."""
    for name, text in {"proc__self__cgroup": cgroup, **files}.items():
        path = root / name.replace("__", "/").replace("_dot_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


V2 = "sys__fs__cgroup__"
V1 = "sys__fs__cgroup__cpu__"
V1_LINES = "12:memory:/m\n4:cpu,cpuacct:/job/step\n3:cpuset:/\n0::/unified\n"


@pytest.mark.parametrize(
    ("cgroup", "files", "expected"),
    [
        ("0::/\n", {}, None),
        ("0::/\n", {V2 + "cpu_dot_max": "max 100000\n"}, None),
        ("0::/\n", {V2 + "cpu_dot_max": "max\n"}, None),
        ("0::/\n", {V2 + "cpu_dot_max": "nonsense"}, None),
        ("0::/\n", {V2 + "cpu_dot_max": "100000 0\n"}, None),
        ("0::/\n", {V2 + "cpu_dot_max": "150000 100000\n"}, 1.5),
        ("0::/\n", {V2 + "cpu_dot_max": "10000 100000\n"}, 0.1),
        # the limit of any group around the process counts, and the smallest one decides
        ("0::/a/b\n", {V2 + "a__b__cpu_dot_max": "max 100000", V2 + "a__cpu_dot_max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {V2 + "a__b__cpu_dot_max": "300000 100000", V2 + "a__cpu_dot_max": "200000 100000"}, 2.0),
        ("0::/a/b\n", {V2 + "a__b__cpu_dot_max": "100000 100000", V2 + "a__cpu_dot_max": "200000 100000"}, 1.0),
        # a container that sees the path of its host, but has its own group at the top
        ("0::/docker/0123\n", {V2 + "cpu_dot_max": "250000 100000"}, 2.5),
        ("0::/../..\n", {V2 + "cpu_dot_max": "250000 100000"}, 2.5),
        (V1_LINES, {V1 + "job__step__cpu_dot_cfs_quota_us": "-1", V1 + "job__step__cpu_dot_cfs_period_us": "100000"}, None),
        (V1_LINES, {V1 + "job__step__cpu_dot_cfs_quota_us": "50000", V1 + "job__step__cpu_dot_cfs_period_us": "25000"}, 2.0),
        (V1_LINES, {V1 + "job__cpu_dot_cfs_quota_us": "50000", V1 + "job__cpu_dot_cfs_period_us": "100000"}, 0.5),
        (V1_LINES, {V1 + "job__cpu_dot_cfs_quota_us": "50000"}, None),
        (V1_LINES, {V2 + "unified__cpu_dot_max": "100000 100000"}, 1.0),
        ("7:name=systemd:/x\n", {V2 + "x__cpu_dot_max": "100000 100000"}, None),
    ],
)  # fmt: skip
def test_the_quota_is_the_smallest_limit_of_the_groups_around_the_process(tmp_path, cgroup, files, expected):
    assert threads.quota(machine(tmp_path, cgroup, **files)) == expected


def test_without_control_groups_there_is_no_quota(tmp_path):
    assert threads.quota(tmp_path) is None


def limited(root: Path, microseconds: int) -> Path:
    return machine(root, "0::/\n", **{V2 + "cpu_dot_max": f"{microseconds} 100000"})


@pytest.mark.parametrize(
    ("microseconds", "expected"), [(1_000, "1"), (100_000, "1"), (100_001, "2"), (290_000, "3"), (300_001, None), (800_000, None)]
)  # fmt: skip
def test_threads_follow_a_quota_below_the_cores_rounded_up(tmp_path, monkeypatch, microseconds, expected):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    assert threads.settings({}, limited(tmp_path, microseconds)).get("OMP_NUM_THREADS") == expected


def test_what_is_set_already_stays(tmp_path, monkeypatch):
    monkeypatch.setattr(threads, "cores", lambda: 4)
    root = limited(tmp_path, 200_000)
    assert threads.settings({}, root) == {"GOMP_SPINCOUNT": "2000", "OMP_NUM_THREADS": "2"}
    assert threads.settings({"GOMP_SPINCOUNT": "7"}, root) == {"OMP_NUM_THREADS": "2"}
    assert threads.settings({"GOMP_SPINCOUNT": "", "OMP_NUM_THREADS": "4"}, root) == {}
    assert threads.settings({}, tmp_path / "elsewhere") == {"GOMP_SPINCOUNT": "2000"}


def test_the_cores_are_those_of_the_affinity_mask(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5}, raising=False)
    assert threads.cores() == 2
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert threads.cores() == 1


def run(code: str, **environment: str) -> str:
    clean = {name: value for name, value in os.environ.items() if name not in ("GOMP_SPINCOUNT", "OMP_NUM_THREADS")}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=clean | environment, capture_output=True, text=True, check=True
    ).stdout


def test_a_shell_and_a_process_can_take_the_settings_without_pytorch():
    code = "import runpy, sys; sys.modules['torch'] = None; runpy.run_module('fsl_course._system.threads', run_name='__main__')"
    assert "export GOMP_SPINCOUNT=2000\n" in run(code)
    assert "GOMP_SPINCOUNT" not in run(code, GOMP_SPINCOUNT="9")
    code = "from fsl_course._system import threads; threads.prepare(); import os; print(os.environ['GOMP_SPINCOUNT'])"
    assert run(code) == "2000\n"
    assert run(code, GOMP_SPINCOUNT="9") == "9\n"


TRAIN = """
import os, sys
from fsl_course.__main__ import main
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            print("spin", os.environ.get("GOMP_SPINCOUNT"))
            sys.meta_path.remove(self)
sys.meta_path.insert(0, Watch())
main(["evaluate", "nothing"])
"""


def test_the_command_line_sets_them_before_pytorch_is_imported():
    assert run(TRAIN) == "spin 2000\n"
    assert run(TRAIN, GOMP_SPINCOUNT="9") == "spin 9\n"
