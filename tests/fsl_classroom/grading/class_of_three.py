"""A small graded class, for the tests of what is made from the tables."""

from __future__ import annotations

from pathlib import Path

from fsl_classroom.grading.report import COLUMNS, SUMMARY, Record, Results, rows, summary, table

CRASH = "RuntimeError: <b>shapes</b> {x} cannot be multiplied & more"
SUMS = "This is what you get when the rows of a class are summed and never divided."
ROSTER = (
    "Student,ID,SIS User ID,SIS Login ID,Section,Email address,ID number\n"
    "    Points Possible,,,,,,\n"
    '"Lovelace, Ada",101,a1,ada,B,ada@uni.example,7001\n'
    "王小明,102,x2,wang,B,Wang@uni.example,\n"
    "=Eve & Co,103,e3,eve,B,eve@uni.example,7003\n"
    '"Body, No",104,n4,no,B,no@uni.example,7004\n'
)


def write_class(folder: Path) -> Path:
    """Writes the tables that `grade` would write for three students and two exercises, worth 2 and 3. Returns the folder."""
    ada: dict[str, tuple[bool, str]] = {"05.1": (True, ""), "07.3": (False, SUMS)}
    both = dict.fromkeys(ada, "apart")
    records = [
        Record("Ada Lovelace", ada, seeds=dict.fromkeys(ada, "7"), judged=both),
        Record("王小明", {"07.3": (False, CRASH)}, errors=["05.ipynb: it is empty"], judged={"07.3": "apart"}),
        Record("=Eve & Co", dict.fromkeys(ada, (True, "")), judged=both),
    ]
    results = Results(folder, records, ["05.1", "07.3"], {"05.1": 2.0, "07.3": 3.0})
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "grades.csv").write_bytes(table(COLUMNS, rows(results)))
    (folder / "grades-summary.csv").write_bytes(table(SUMMARY, summary(results)))
    return folder


def late_files(folder: Path, times: str, policy: str = "") -> list[str]:
    """Writes a policy and a table of times beside the class. Returns the options that name them."""
    (folder / "late.toml").write_text(policy or "due = 2026-11-30T18:00:00+01:00\npercent_per_day = 10\n")
    (folder / "times.csv").write_text(f"student,handed_in,due\n{times}")
    return ["--late", str(folder / "late.toml"), "--times", str(folder / "times.csv")]
