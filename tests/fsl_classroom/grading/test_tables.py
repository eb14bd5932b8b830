"""The tables of `grade` read back as they were written, and what is no such table is named."""

import pytest

from fsl_classroom.grading.tables import read_csv, read_tables
from tests.fsl_classroom.grading.class_of_three import CRASH, SUMS, write_class


def test_the_tables_read_back(tmp_path):
    ada, ming, eve = read_tables(write_class(tmp_path))
    assert (ada.student, ada.points, ada.worth, ada.errors) == ("Ada Lovelace", 2.0, 5.0, "")
    assert [(line.exercise, line.passed, line.diagnosis, line.seed) for line in ada.lines] == [
        ("05.1", True, "", "7"),
        ("07.3", False, SUMS, "7"),
    ]
    assert (ming.points, ming.errors) == (0.0, "05.ipynb: it is empty")
    assert [line.diagnosis for line in ming.lines] == ["not attempted", CRASH]
    assert (eve.student, eve.points) == ("=Eve & Co", 5.0)  # without the apostrophe that protects spreadsheets


def test_what_a_spreadsheet_makes_of_it_is_still_read(tmp_path):
    path = write_class(tmp_path) / "grades.csv"
    text = path.read_text(encoding="utf-8").replace(",", ";").replace("true", "TRUE")
    path.write_text("\ufeff" + text.replace(";2;2;", ";1,5;2;"), encoding="utf-8")
    ada = read_tables(tmp_path)[0]
    assert [(line.passed, line.points) for line in ada.lines] == [(True, 1.5), (False, 0.0)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda text: text.replace("points", "marks"), "has no column points. It has: student, exercise"),
        (lambda text: text.replace("true", "maybe", 1), "line 2: passed is true or false, and not 'maybe'"),
        (lambda text: text.replace(",2,2,", ",-2,2,", 1), "line 2: points are numbers from 0 on, and not '-2'"),
        (lambda text: text.replace(",2,2,", ",nan,2,", 1), "points are numbers from 0 on, and not 'nan'"),
        (lambda text: "", "has no column student"),
    ],
)
def test_a_table_that_was_spoilt_is_named_with_its_line(tmp_path, change, words):
    path = write_class(tmp_path) / "grades.csv"
    path.write_text(change(path.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=words):
        read_tables(tmp_path)


def test_files_that_are_no_tables_are_named(tmp_path):
    with pytest.raises(ValueError, match="First run: python -m fsl_classroom grade"):
        read_tables(tmp_path)
    (tmp_path / "list.csv").write_bytes("Müller".encode("latin-1"))
    with pytest.raises(ValueError, match="is not in UTF-8"):
        read_csv(tmp_path / "list.csv")
    with pytest.raises(ValueError, match="cannot be read"):
        read_csv(tmp_path / "missing.csv")
