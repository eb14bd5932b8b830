"""The two tables."""

import csv
import io
from pathlib import Path

from fsl_classroom.grading.report import COLUMNS, SUMMARY, Record, Results, defused, number, rows, summary, table


def test_formulas_and_line_ends_are_defused():
    for text in ("=1+1", "+1", "-1", "@x", " =1", "\t=1", "\r=1"):
        assert defused(text).startswith("'")
    assert defused("a\nb\x00c") == "a b c"
    assert defused("a\u202eb\u2066c") == "a b c"
    assert defused("王小明 Müller  👩‍🎓") == "王小明 Müller  👩‍🎓"


def test_the_better_verdict_stays():
    record = Record("a")
    record.add({"05.1": (False, "not attempted"), "05.2": (True, "")})
    record.add({"05.1": (False, "wrong"), "05.2": (False, "wrong")})
    record.add({"05.1": (False, "not attempted")})
    assert record.verdicts == {"05.1": (False, "wrong"), "05.2": (True, "")}


def test_rows_and_summary():
    record = Record("a", lessons={"05"}, notebooks=2, errors=["odd", "more"], unread={"06": "empty"})
    record.add({"05.1": (True, "")}, {"05.1": "7"}, {"05.1": "apart"})
    results = Results(Path("class"), [record], ["05.1", "05.2", "06.1"], {"05.1": 2.5, "06.1": 0.5})
    assert rows(results) == [
        ("a", "05.1", "true", "", "7", "2.5", "2.5", "apart"),
        ("a", "05.2", "false", "not attempted", "", "0", "1", ""),
        ("a", "06.1", "false", "not attempted (empty)", "", "0", "0.5", ""),
    ]
    assert summary(results) == [("a", "1", "3", "1", "2", "odd; more", "2.5", "4")]
    assert (results.total(record), results.most()) == (2.5, 4.0)
    assert len(rows(results)[0]) == len(COLUMNS)
    assert len(summary(results)[0]) == len(SUMMARY)


def test_seed_and_process_belong_to_the_verdict_that_counts():
    record = Record("a")
    record.add({"05.1": (False, "wrong")}, {"05.1": "7"}, {"05.1": "apart"})
    record.add({"05.1": (True, "")}, {"05.1": "8"}, {"05.1": "together"})
    record.add({"05.1": (False, "wrong")}, {"05.1": "9"})
    assert (record.seeds, record.judged) == ({"05.1": "8"}, {"05.1": "together"})


def test_points_are_written_without_noise():
    assert [number(points) for points in (0.1 + 0.2, 2.0, 0.0, 1 / 3)] == ["0.3", "2", "0", "0.3333333333"]


def test_the_table_reads_back():
    written = table(COLUMNS, [("a,b", "05.1", "false", 'he said "no"')])
    assert list(csv.reader(io.StringIO(written.decode()))) == [list(COLUMNS), ["a,b", "05.1", "false", 'he said "no"']]
    assert table(COLUMNS, [("\udcff", "", "", "")]).decode().endswith("?,,,\n")
