"""Pages of feedback: whole, safe whatever a student wrote, and readable without colour, script and network."""

import re
from html.parser import HTMLParser

import pytest

from fsl_classroom import find
from fsl_classroom.__main__ import main
from fsl_classroom.grading.feedback import file_names, hint_for
from tests.fsl_classroom.grading.class_of_three import SUMS, late_files, write_class


class Page(HTMLParser):
    """Collects the elements of a page with their attributes, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_data(self, data):
        self.text += data


@pytest.fixture
def pages(tmp_path):
    """Returns a function that runs the command and returns student -> page."""
    folder = write_class(tmp_path / "class")

    def run(*words: str):
        assert main(["feedback", str(folder), "--title", "Week 3", *words]) == 0
        made = (tmp_path / "class-feedback").iterdir()
        return {path.stem: Page(path.read_text(encoding="utf-8")) for path in made}

    return run


def test_every_student_has_a_page_with_points_diagnosis_and_hint(pages):
    made = pages()
    assert sorted(made) == ["=Eve & Co", "Ada Lovelace", "王小明"]
    ada = made["Ada Lovelace"].text
    assert "Feedback for Ada Lovelace" in ada
    assert "2 of 5 points" in ada
    assert "1 of 2 exercises are right." in ada
    assert SUMS in ada
    assert find("07.3@7").hints[0].split("`")[0] in ada
    assert "05.1 (seed 7)" in ada
    assert "About your files: 05.ipynb: it is empty." in made["王小明"].text
    assert made["王小明"].text.count("not attempted") == 1


def test_a_page_is_whole_and_safe(pages):
    made = pages()
    assert "<b>shapes</b> {x} cannot be multiplied & more" in made["王小明"].text  # what the student wrote is text
    for page in made.values():
        assert {"script", "b"}.isdisjoint(tag for tag, _ in page.elements)
        assert not [a for _, a in page.elements for name in a if name in ("src", "href") or name.startswith("on")]
        policy = [a["content"] for tag, a in page.elements if tag == "meta" and "content" in a]
        assert "default-src 'none'; style-src 'unsafe-inline'" in policy
        assert ("html", {"lang": "en"}) in page.elements


def test_a_page_can_be_read_aloud(pages):
    page = pages()["Ada Lovelace"]
    pictures = [attributes for tag, attributes in page.elements if tag == "svg"]
    assert [(p["role"], p["aria-label"]) for p in pictures] == [("img", "A bar that stands for 2 of 5 points")]
    heads = [attributes.get("scope") for tag, attributes in page.elements if tag == "th"]
    assert heads == ["col"] * 4 + ["row"] * 2
    assert re.search(r"right.*not right yet", page.text, re.S)  # in words, beside the marks


def test_the_lateness_is_told(pages, tmp_path):
    times = "Ada Lovelace,2026-12-02T09:00:00+01:00,\n=Eve & Co,2026-11-30T17:00:00Z,\n"
    made = pages(*late_files(tmp_path, times))
    assert "Handed in 2 days late: 1 of 2 points are taken off." in made["Ada Lovelace"].text
    assert "1 of 5 points" in made["Ada Lovelace"].text
    assert "late" not in made["=Eve & Co"].text


def test_what_was_refused_unseen_gets_no_hint(pages, tmp_path):
    """A notebook with a neighbour's seed was not tried: a hint to its exercise would be beside the point."""
    path = tmp_path / "class" / "grades.csv"
    refused = path.read_text(encoding="utf-8").replace(SUMS, "The check has the seed 7 of somebody else.")
    path.write_text(refused.replace(",7,0,3,apart", ",7,0,3,"), encoding="utf-8")
    text = pages()["Ada Lovelace"].text
    assert "The check has the seed 7" in text
    assert "Hint" not in text


def test_a_page_names_no_other_student(pages, tmp_path):
    path = tmp_path / "class" / "grades-summary.csv"
    told = "05.1 was handed in with the seed 7 of Ada-Lovelace; 05.ipynb: it is empty; a.ipynb is like ada lovelace's"
    path.write_text(path.read_text(encoding="utf-8").replace("05.ipynb: it is empty", told), encoding="utf-8")
    text = pages()["王小明"].text
    assert "Lovelace" not in text
    assert "lovelace" not in text
    assert "About your files: 05.ipynb: it is empty." in text


def test_a_diagnosed_mistake_gets_the_hint_of_that_mistake():
    exercise = find("05.1")
    entry = exercise.wrong[1]
    assert hint_for(exercise, f"This is what you get when {entry.diagnosis.rstrip('.')}.") == entry.hint
    assert hint_for(exercise, "something else") == exercise.hints[0]
    assert hint_for(None, "anything") == ""


def test_file_names_fit_every_system_and_are_never_shared():
    names = file_names(["Ada", "ada", "a/b:c", "..", "王" * 120, "Ada-2"])
    assert names[:4] == ["Ada.html", "ada-2.html", "a-b-c.html", "student.html"]
    assert names[4] == "王" * 66 + ".html"
    assert names[5] == "Ada-2-2.html"


def test_pages_do_not_go_where_grade_looks_for_students(tmp_path, capsys):
    folder = write_class(tmp_path / "class")
    for out in (folder, folder / "feedback"):
        assert main(["feedback", str(folder), "--out", str(out)]) == 1
        assert "would take it for a student" in capsys.readouterr().err
    assert sorted(path.name for path in folder.iterdir()) == ["grades-summary.csv", "grades.csv"]
    assert main(["feedback", str(folder), "--out", str(tmp_path / "there")]) == 0
    assert len(list((tmp_path / "there").iterdir())) == 3


def test_exercises_that_this_version_does_not_know_are_shown_without_a_hint(tmp_path):
    folder = write_class(tmp_path / "class")
    path = folder / "grades.csv"
    path.write_text(path.read_text(encoding="utf-8").replace("07.3", "97.3"), encoding="utf-8")
    assert main(["feedback", str(folder)]) == 0
    page = Page((tmp_path / "class-feedback" / "Ada Lovelace.html").read_text(encoding="utf-8"))
    assert SUMS in page.text
    assert "Hint" not in page.text
