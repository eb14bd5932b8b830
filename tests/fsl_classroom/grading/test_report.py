"""The two tables."""

import csv
import io

from fsl_classroom.grading.report import COLUMNS, Record, defused, rows, summary, table


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
    record = Record("a", {"05.1": (True, "")}, {"05"}, notebooks=2, errors=["odd", "more"], unread={"06": "empty"})
    exercises = ["05.1", "05.2", "06.1"]
    assert rows([record], exercises) == [
        ("a", "05.1", "true", ""),
        ("a", "05.2", "false", "not attempted"),
        ("a", "06.1", "false", "not attempted (empty)"),
    ]
    assert summary([record], exercises) == [("a", "1", "3", "1", "2", "odd; more")]


def test_the_table_reads_back():
    written = table(COLUMNS, [("a,b", "05.1", "false", 'he said "no"')])
    assert list(csv.reader(io.StringIO(written.decode()))) == [list(COLUMNS), ["a,b", "05.1", "false", 'he said "no"']]
    assert table(COLUMNS, [("\udcff", "", "", "")]).decode().endswith("?,,,\n")
